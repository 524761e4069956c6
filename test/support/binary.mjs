// Reads what readelf and nm say of objects and libraries.

/** Weak, vague and unique definitions: of those the linker keeps one copy for all objects. @returns their names */
export function weakSymbols(nm) {
  return nm.split('\n').map(line => /^[\da-f]+ [WVu] (.*)$/.exec(line)?.[1]).filter(Boolean);
}

/** Whether a version is newer than another: 2.30 is newer than 2.4. */
export function isNewer(version, than) {
  const [a, b] = [version, than].map(text => text.split('.').map(Number));
  const place = a.findIndex((n, i) => n !== (b[i] ?? 0));
  return place >= 0 && a[place] > (b[place] ?? 0);
}

/**
 * @param symbols of readelf --dyn-syms --wide
 * @param dynamic of readelf --dynamic --wide
 * @returns names that it exports; versions of glibc that it wants (oldest first); other versions of symbols that it
 *     wants, as GLIBCXX_3.4; libraries that it wants
 */
export function addonNeeds(symbols, dynamic) {
  const rows = symbols.split('\n').map(line => line.trim().split(/\s+/)).filter(([number]) => /^\d+:$/.test(number));
  const [undefinedOnes, defined] = [true, false].map(
      isUndefined => rows.filter(([, , , , , , section, name]) => name && (section === 'UND') === isUndefined));
  const wanted = undefinedOnes.map(([, , , , , , , name]) => /@(\S*)/.exec(name)?.[1]).filter(Boolean);
  const ofGlibc = name => /^GLIBC_([\d.]+)$/.exec(name)?.[1];
  return {
    exports: defined.map(([, , , , , , , name]) => name.split('@')[0]),
    versions: [...new Set(wanted.map(ofGlibc).filter(Boolean))].sort((a, b) => isNewer(a, b) ? 1 : -1),
    otherVersions: wanted.filter(name => !ofGlibc(name)),
    libraries: [...dynamic.matchAll(/\(NEEDED\).*\[(.*)\]/g)].map(([, name]) => name),
  };
}
