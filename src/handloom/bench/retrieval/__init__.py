"""How good the searches are: rendered clips whose actions are known, and what each search finds among them."""
