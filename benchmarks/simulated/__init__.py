"""A fleet of clients and their endpoints in virtual time, around the real code of `syncfailover/policy`."""
