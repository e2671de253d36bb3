"""Records under terms: sealed segments, the keystore beside them, and the process that writes them."""
