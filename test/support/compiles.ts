type Compiling = 'createShaderModule'|'createComputePipeline'|'createComputePipelineAsync';

/** Counts what a device is asked to compile: shader modules, and pipelines at once and in the background. */
export class Compiles {
  modules = 0;
  now = 0;
  inBackground = 0;
  /** Of which kernels, a name for each pipeline. */
  readonly kernels: string[] = [];
  private readonly restore: Array<() => void> = [];

  constructor(device: GPUDevice) {
    const count = (name: Compiling, add: (kernel: string) => void) => {
      const real = device[name].bind(device) as (descriptor: unknown) => unknown;
      Object.defineProperty(device, name, {
        configurable: true,
        value: (descriptor: {label?: string}) => {
          if (descriptor.label?.startsWith('flashAttention')) { // not tfjs' own
            add(descriptor.label.slice('flashAttention '.length));
          }
          return real(descriptor);
        },
      });
      this.restore.push(() => delete (device as unknown as Record<string, unknown>)[name]);
    };
    count('createShaderModule', () => this.modules++);
    count('createComputePipeline', kernel => {
      this.now++;
      this.kernels.push(kernel);
    });
    count('createComputePipelineAsync', kernel => {
      this.inBackground++;
      this.kernels.push(kernel);
    });
  }

  stop() {
    this.restore.forEach(restore => restore());
  }
}
