"""What `bbi top` is made of: a thread that looks, a screen that shows, keys that choose."""
