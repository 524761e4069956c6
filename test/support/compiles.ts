type Compiling = 'createShaderModule'|'createComputePipeline'|'createComputePipelineAsync';

/** Counts what a device is asked to compile: shader modules, and pipelines at once and in the background. */
export class Compiles {
  modules = 0;
  now = 0;
  inBackground = 0;
  private readonly restore: Array<() => void> = [];

  constructor(device: GPUDevice) {
    const count = (name: Compiling, add: () => void) => {
      const real = device[name].bind(device) as (descriptor: unknown) => unknown;
      Object.defineProperty(device, name, {
        configurable: true,
        value: (descriptor: {label?: string}) => {
          if (descriptor.label?.startsWith('flashAttention')) { // not tfjs' own
            add();
          }
          return real(descriptor);
        },
      });
      this.restore.push(() => delete (device as unknown as Record<string, unknown>)[name]);
    };
    count('createShaderModule', () => this.modules++);
    count('createComputePipeline', () => this.now++);
    count('createComputePipelineAsync', () => this.inBackground++);
  }

  stop() {
    this.restore.forEach(restore => restore());
  }
}
