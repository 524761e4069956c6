import * as vega from 'vega';
import {compile} from 'vega-lite';
import type {TopLevelSpec} from 'vega-lite';

/** Draws a Vega-Lite plot, in Node as in a page. */
export async function toSvg(spec: TopLevelSpec): Promise<string> {
  const view = new vega.View(vega.parse(compile(spec).spec), {renderer: 'none'});
  const svg = await view.toSVG();
  view.finalize();
  return svg;
}
