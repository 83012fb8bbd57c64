"""The demo: one page that shows WebPush through a farm, and the app server behind it that sends the pushes.

`sender` (what is posted) and `page` (what is shown) do no I/O; `server` is the thin shell around them.
"""
