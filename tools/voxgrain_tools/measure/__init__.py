"""What a voice is judged by: what is heard, how it sounds, and how sure that is."""
