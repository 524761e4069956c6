// A workgroup's threads in rows of THREADS_X neighbours.

var<private> thread: u32;
var<private> tx: u32;
var<private> ty: u32;

fn start_thread(index: u32) {
  thread = index;
  tx = index % THREADS_X;
  ty = index / THREADS_X;
}
