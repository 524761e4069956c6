fn is_for_this_kernel() -> bool { return true; }
