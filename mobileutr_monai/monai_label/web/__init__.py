"""The web application: who may call it, with which parameters, and what it answers."""
