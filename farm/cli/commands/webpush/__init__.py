"""Commands of the WebPush dialect."""
