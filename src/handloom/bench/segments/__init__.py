"""`handloom bench segments`: atomic actions, contacts and object poses against rendered truth; EPIC's action times."""
