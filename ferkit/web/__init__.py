"""The web page that recognizes live, and the HTTP API behind it: Flask, served by waitress."""
