"""From a publication to the bytes that each client is sent, in order, within bounds.

Pure: knows neither sockets nor Redis nor who the clients are.
"""
