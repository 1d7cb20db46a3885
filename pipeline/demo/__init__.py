"""The demo: a page on which a picture and an expression become a mask, its candidates, and the mask made of them."""
