"""What hands do with things: contacts, held things and their poses, atomic actions; of a row's arrays."""
