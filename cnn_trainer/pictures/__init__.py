"""Real pictures, made like the images that a network was trained on, and what it says about them."""
