// Operands are what the first pass of to_half makes of them.
fn operand_exponent(tensor: u32) -> i32 { return 0; }
