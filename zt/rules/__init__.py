"""The rules language: text to JSON rules and back."""
