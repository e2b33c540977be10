"""The history of the schema, frozen. Imports nothing of the program whose schema it is."""
