// Which tiles a block works on and in which order, and which keys (or queries) a tile needs: what lengths, causal and
// window come to. The same meaning as kernels/cpu/sequences.h, on 32-bit numbers.
#pragma once

#include "layouts.h"

namespace flash_attention {
namespace hopper {

FLASH_SHARED_CODE int smaller(int a, int b) { return a < b ? a : b; }
FLASH_SHARED_CODE int larger(int a, int b) { return a > b ? a : b; }

/** What a row sees, and what sees a key. Windows are -1 (no bound) or up to 2³⁰, so that no sum overflows. */
struct Visibility {
  int queries, keys;
  /** Key j is on the diagonal of query i when j = i + offset. */
  int offset;
  int window_left, window_right;

  /** First key that a query sees, and one past the last; a query past the last sees none. */
  FLASH_SHARED_CODE int key_begin(int query) const {
    return window_left < 0 ? 0 : larger(0, query + offset - window_left);
  }
  FLASH_SHARED_CODE int key_end(int query) const {
    return query >= queries  ? 0
        : window_right < 0 ? keys
                           : larger(0, smaller(keys, query + offset + window_right + 1));
  }
  /** First query that sees a key, as far as the window tells, and one past the last. */
  FLASH_SHARED_CODE int query_begin(int key) const {
    return window_right < 0 ? 0 : larger(0, key - offset - window_right);
  }
  FLASH_SHARED_CODE int query_end(int key) const {
    return key >= keys      ? 0
        : window_left < 0 ? queries
                          : larger(0, smaller(queries, key - offset + window_left + 1));
  }
};

/** Tiles from `first` to before `last`; those inside [whole_first, whole_last) need no mask. */
struct TileRange {
  int first, last, whole_first, whole_last;
  FLASH_SHARED_CODE int count() const { return larger(0, last - first); }
  FLASH_SHARED_CODE bool is_whole(int tile) const { return tile >= whole_first && tile < whole_last; }
};

/** From the least and the greatest of what the rows of a block see: [any_begin, any_end), [all_begin, all_end). */
FLASH_SHARED_CODE TileRange tile_range(int any_begin, int any_end, int all_begin, int all_end, int size) {
  TileRange range = {0, 0, 0, 0};
  if (any_begin < any_end) {
    range.first = any_begin / size;
    range.last = (any_end + size - 1) / size;
    range.whole_first = (all_begin + size - 1) / size;
    range.whole_last = all_end / size;
  }
  return range;
}

/**
 * Tiles of `size` keys for queries [first, first + rows). Queries past the last do not count: what they come to is
 * thrown away, so they need no mask.
 */
FLASH_SHARED_CODE TileRange key_tiles(const Visibility& sees, int first, int rows, int size) {
  const int last = smaller(first + rows, sees.queries) - 1;
  if (first > last) {
    return {0, 0, 0, 0};
  }
  return tile_range(sees.key_begin(first), sees.key_end(last), sees.key_begin(last), sees.key_end(first), size);
}

/** Tiles of `size` queries for keys [first, first + rows). Keys past the last do not count. */
FLASH_SHARED_CODE TileRange query_tiles(const Visibility& sees, int first, int rows, int size) {
  const int last = smaller(first + rows, sees.keys) - 1;
  if (first > last) {
    return {0, 0, 0, 0};
  }
  return tile_range(sees.query_begin(first), sees.query_end(last), sees.query_begin(last), sees.query_end(first), size);
}

/** Tiles of all heads in the order in which blocks take them. */
struct TileOrder {
  /** Heads (batches × heads), and tiles of each. */
  int heads, tiles;
  /** Heads whose operands stay in L2 together: their tiles come one after the other. */
  int section;
  /** Whether tiles of high number come first, which under causal are the heavy ones of queries. */
  bool descending;
};

/**
 * Heads of a section: as many whole groups of `together` heads, which read the same operands of `bytes`, as fit in half
 * of an L2 of 50 MB; at least one group.
 */
FLASH_SHARED_CODE int section_heads(int heads, int together, int64_t bytes) {
  const int64_t groups = bytes > 0 ? (25 << 20) / bytes : heads;
  const int64_t section = (groups > 1 ? groups : 1) * together;
  return section < heads ? static_cast<int>(section) : heads;
}

struct WorkTile {
  int head, tile;
};

/** The order is by sections of heads, then by tiles, then by heads: neighbours in time share keys and weigh alike. */
FLASH_SHARED_CODE WorkTile work_tile(const TileOrder& order, int index) {
  const int per_section = order.section * order.tiles;
  const int section = index / per_section, rest = index - section * per_section;
  const int heads = smaller(order.section, order.heads - section * order.section);
  const int tile = rest / heads;
  return {section * order.section + rest - tile * heads, order.descending ? order.tiles - 1 - tile : tile};
}

}  // namespace hopper
}  // namespace flash_attention
