"""A configuration of gunicorn that has gevent patch the program before the application is imported."""

from gevent import monkey

monkey.patch_all()
