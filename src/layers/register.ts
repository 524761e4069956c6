import {serialization} from '@tensorflow/tfjs-core';

/** Package part of the names in tfjs-core's list, such as `tfjs-flash-attention>FlashMultiHeadAttention`. */
const PACKAGE = 'tfjs-flash-attention';

type SerializableClass = Parameters<typeof serialization.registerClass>[0];

/** How a class says that it is a copy of ours, from the ESM or the CommonJS build. */
interface Branded {
  readonly registeredBy?: string;
}

/**
 * Makes a layer loadable from saved models. tfjs looks classes up by `className` alone, so the first class of a name
 * stays: a second copy of this package changes nothing, and somebody else's class is left as it is, with a warning.
 * @param cls its `className` must be its own, not inherited.
 */
export function registerOnce(cls: SerializableClass): void {
  const {className} = cls;
  const found = serialization.SerializationMap.getMap().classNameMap[className];
  if (found === undefined) {
    Object.defineProperty(cls, 'registeredBy', {value: PACKAGE});
    serialization.registerClass(cls, PACKAGE);
  } else if ((found[0] as Branded).registeredBy !== PACKAGE) {
    console.warn(
        `${PACKAGE}: another class is registered as '${className}'; it stays, so saved models load it instead of ours`);
  }
}
