"""Two processes of four threads: `gunicorn --config gunicorn.conf.py 'flask_app:create_app()'`."""

bind = "127.0.0.1:8000"
workers = 2
worker_class = "gthread"
threads = 4
# Seconds after SIGTERM for requests, and for what they left to the background.
graceful_timeout = 4
