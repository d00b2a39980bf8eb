"""The quantities the claims are about, one module a section of the paper, each from records to estimates."""
