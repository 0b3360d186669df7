"""A mail server that prints each message as one line of JSON, and refuses recipients by their names."""

import asyncio
import json

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult


class Handler:
    def __init__(self):
        self.busy = set()

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("nobody"):
            return "550 5.1.1 no such mailbox"
        if address.startswith("busy") and address not in self.busy:
            self.busy.add(address)
            return "451 4.3.0 try later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        message = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "content": envelope.content.decode("utf-8", "replace"),
            "user": session.auth_data.login.decode() if session.auth_data else None,
        }
        print(json.dumps(message), flush=True)
        # Taken, but the answer is lost.
        if envelope.rcpt_tos[0].startswith("lost") and envelope.rcpt_tos[0] not in self.busy:
            self.busy.add(envelope.rcpt_tos[0])
            server.transport.abort()
        return "250 taken"


def check(server, session, envelope, mechanism, data):
    return AuthResult(success=data.password == b"right", handled=False, auth_data=data)


controller = Controller(
    Handler(), hostname="127.0.0.1", port=0, authenticator=check, auth_require_tls=False
)
loop = asyncio.new_event_loop()


async def serve():
    server = await loop.create_server(controller.factory, "127.0.0.1", 0)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await server.serve_forever()


controller.loop = loop
loop.run_until_complete(serve())
