"""An FTP server for tests: ftp_server.py PORT FOLDER [CERTIFICATE]. Anonymous and archive:canary-password may read."""

import logging
import sys

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import FTPServer

logging.basicConfig(level=logging.ERROR)
port, folder = int(sys.argv[1]), sys.argv[2]
authorizer = DummyAuthorizer()
authorizer.add_anonymous(folder)
authorizer.add_user("archive", "canary-password", folder, perm="elr")
handler = FTPHandler
if len(sys.argv) > 3:
    from pyftpdlib.handlers import TLS_DTPHandler, TLS_FTPHandler

    class DataHandler(TLS_DTPHandler):
        """pyftpdlib 1.5.7 hangs up on clients that begin TLS before they send RETR, as libcurl does."""

        def readable(self):
            return self._ssl_accepting or super().readable()

    handler = TLS_FTPHandler
    handler.dtp_handler = DataHandler
    handler.certfile = sys.argv[3]
    handler.tls_control_required = True
    handler.tls_data_required = True
handler.authorizer = authorizer
handler.use_sendfile = False
handler.auth_failed_timeout = 0.01
FTPServer(("127.0.0.1", port), handler).serve_forever()
