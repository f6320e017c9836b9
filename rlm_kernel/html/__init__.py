"""HTML that is safe by how it is made."""
