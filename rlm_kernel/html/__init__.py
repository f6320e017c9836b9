"""HTML that is safe by construction."""
