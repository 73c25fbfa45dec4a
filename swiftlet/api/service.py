"""Calls and who answers them: interfaces, methods with typed parameters, varlink's own errors and ours.

Nothing here touches a socket; `server` reads calls and sends what `Service.answer` returns. What the methods do is
left to whoever adds interfaces.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from swiftlet.linux.channel import Message
from swiftlet.model.error import SwiftletError
from swiftlet.model.invalid import place_of
from swiftlet.node.names import storage_error
from swiftlet.node.wire import close_all

log = logging.getLogger("swiftlet.server")

VARLINK = "org.varlink.service"


class Sender(Protocol):
    """Where answers go."""

    async def send(self, message: Message, fds: tuple[int, ...]) -> None:
        """Send one message whole. Raises OSError."""


class CallFailed(Exception):
    """An error of varlink's own, such as MethodNotFound, with its parameters."""

    def __init__(self, name: str, **parameters: Any) -> None:
        super().__init__(name)
        self.name = f"{VARLINK}.{name}"
        self.parameters = parameters


@dataclass(slots=True)
class Reply:
    """An answer; its descriptors belong to the server once it is returned or sent, and are closed when they are out."""

    parameters: Message = field(default_factory=dict)
    fds: tuple[int, ...] = ()


class Call:
    """One call being answered. Its descriptors are closed when it ends, or earlier by `close_descriptors`."""

    def __init__(self, connection: Sender, message: Message, fds: tuple[int, ...]) -> None:
        self._connection = connection
        self._message = message
        self.fds = fds

    @property
    def method(self) -> str:
        """The whole name; "" when the message has none."""
        name = self._message.get("method")
        return name if isinstance(name, str) else ""

    @property
    def parameters(self) -> Any:
        """What the caller sent as parameters, unchecked."""
        return self._message.get("parameters") or {}

    @property
    def more(self) -> bool:
        """Whether the caller takes several answers."""
        return self._message.get("more") is True

    @property
    def oneway(self) -> bool:
        """Whether the caller wants no answer at all."""
        return self._message.get("oneway") is True

    def close_descriptors(self) -> None:
        """Close what came with the call; done again at its end."""
        close_all(self.fds)
        self.fds = ()

    async def send(self, parameters: Message, fds: tuple[int, ...] = ()) -> None:
        """Send an answer that is not the last. `fds` are closed once sent, and also when that fails."""
        try:
            if not self.oneway:
                await self._connection.send({"parameters": parameters, "continues": True}, fds)
        finally:
            close_all(fds)


Parameters = TypeVar("Parameters")
Handler = Callable[[Call, Parameters], Awaitable[Reply]]


@dataclass(slots=True)
class Method(Generic[Parameters]):
    """parameters: the msgspec struct that a call's parameters are decoded into. streams: needs `more`."""

    parameters: type[Parameters]
    handler: Handler[Parameters]
    streams: bool = False


@dataclass(slots=True)
class Interface:
    """A varlink interface: its name, its description in varlink's own language, and its methods by short name."""

    name: str
    description: str
    methods: dict[str, Method[Any]]


class Service:
    """The interfaces that a server offers. Errors of the model travel as errors of `error_interface`."""

    def __init__(self, *, vendor: str, product: str, version: str, url: str, error_interface: str) -> None:
        self._about = {"vendor": vendor, "product": product, "version": version, "url": url}
        self._error_interface = error_interface
        self._interfaces: dict[str, Interface] = {}
        self.add(_own_interface(self))

    def add(self, interface: Interface) -> None:
        """Offer one more interface."""
        self._interfaces[interface.name] = interface

    def information(self) -> Message:
        """What GetInfo answers."""
        return {**self._about, "interfaces": list(self._interfaces)}

    def description(self, name: str) -> str:
        """An interface's description. Raises CallFailed."""
        interface = self._interfaces.get(name)
        if interface is None:
            raise CallFailed("InterfaceNotFound", interface=name)
        return interface.description

    async def answer(self, call: Call) -> tuple[Message, tuple[int, ...]]:
        """The last answer to a call and its descriptors, which the caller must close. Only cancellation gets out."""
        try:
            reply = await self._invoke(call)
        except CallFailed as error:
            return {"error": error.name, "parameters": error.parameters}, ()
        except SwiftletError as error:
            return self.failure(error), ()
        except OSError as error:
            return self.failure(storage_error(error, str(error.filename or "the node daemon"))), ()
        except Exception as error:
            log.exception("%s failed", call.method)
            hint = "this is a fault of swiftlet; the daemon's log has more"
            return self.failure(SwiftletError(f"{call.method}: {type(error).__name__}: {error}", hint)), ()
        return {"parameters": reply.parameters}, reply.fds

    async def _invoke(self, call: Call) -> Reply:
        interface_name, _, name = call.method.rpartition(".")
        interface = self._interfaces.get(interface_name)
        if interface is None:
            raise CallFailed("InterfaceNotFound", interface=interface_name)
        method = interface.methods.get(name)
        if method is None:
            raise CallFailed("MethodNotFound", method=call.method)
        if method.streams and not (call.more or call.oneway):
            raise CallFailed("ExpectedMore")
        return await method.handler(call, decode_parameters(call.parameters, method.parameters))

    def failure(self, error: SwiftletError) -> Message:
        """The answer that tells an error of the model's."""
        told = {"message": str(error), "hint": error.hint, "exit_code": error.exit_code}
        return {"error": f"{self._error_interface}.{error.kind}", "parameters": told}


def decode_parameters(parameters: Any, into: type[Parameters]) -> Parameters:
    """Check parameters against a struct. Raises CallFailed naming the path, such as `$.guest`."""
    try:
        msgspec.json.encode(parameters)  # JSON can spell half a surrogate pair, which is no text
        return msgspec.convert(parameters, into)
    except UnicodeEncodeError:
        raise CallFailed("InvalidParameter", parameter="$", message="holds text that is not Unicode") from None
    except msgspec.ValidationError as error:
        path, complaint = place_of(error)
        raise CallFailed("InvalidParameter", parameter=path, message=complaint) from None


class _NoParameters(msgspec.Struct, forbid_unknown_fields=True):
    pass


class _InterfaceName(msgspec.Struct, forbid_unknown_fields=True):
    interface: str


_OWN_DESCRIPTION = """# What every varlink service answers: who it is and what it offers
interface org.varlink.service

method GetInfo() -> (vendor: string, product: string, version: string, url: string, interfaces: []string)

method GetInterfaceDescription(interface: string) -> (description: string)

error InterfaceNotFound (interface: string)
error MethodNotFound (method: string)
error MethodNotImplemented (method: string)
error InvalidParameter (parameter: string)
error PermissionDenied ()
error ExpectedMore ()
"""


def _own_interface(service: Service) -> Interface:
    async def information(call: Call, parameters: _NoParameters) -> Reply:
        return Reply(service.information())

    async def description(call: Call, parameters: _InterfaceName) -> Reply:
        return Reply({"description": service.description(parameters.interface)})

    methods: dict[str, Method[Any]] = {
        "GetInfo": Method(_NoParameters, information),
        "GetInterfaceDescription": Method(_InterfaceName, description),
    }
    return Interface(VARLINK, _OWN_DESCRIPTION, methods)
