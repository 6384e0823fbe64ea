"""The `serval` command: reads its arguments and hands over to the module of the subcommand."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence

from serval_node.cli import (
    adhoc,
    arguments,
    bind,
    connect,
    datagrams,
    delayed,
    encapsulation,
    events,
    explain,
    load,
    migrate,
    mode,
    router,
    rule,
    show,
    trace,
)
from serval_node.cli.errors import CommandError
from serval_node.cli.output import print_json
from serval_node.cli.run import run
from serval_node.cli.standby import standby
from serval_node.cli.watch_options import LONGEST_INTERVAL, SHORTEST_INTERVAL, TABLES
from serval_node.control.local import CONTROL_PATH, Client, ControlError

_DESCRIPTION = """\
Look at and use the Serval node of this host.

A service is written as a name (web.example), a name with a port (web.example:8080), hexadecimal with an
optional prefix length (0x12ab/24), or the original's decimal form (16390)."""

_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EIO)

_EXAMPLES = """\
examples:
  serval table                                           the service table: serviceID, action, sock/addr
  serval connect web.example --count 8                   which instance answers each of 8 connects
  echo hello | serval connect echo.example               a netcat by service name
  serval run --service web.example -- python3 -m http.server 80
  serval explain web.example                             the rules that a connect would meet; sends nothing
  serval migrate interface eth0 eth1                     every flow of eth0 goes on over eth1
  serval trace web.example                               one connect, step by step as on the slides
  serval watch                                           the tables, live, with what changed marked (q ends it)
  serval events --follow --kind Blackout                 the account of each move of a flow, as it happens"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, or not 0 with one clear line on standard error."""
    options = _parser().parse_args(arguments)
    os.environ["SERVAL_CONTROL"] = options.control
    try:
        with Client(options.control) as client:
            status = _COMMANDS[options.command](client, options)
            sys.stdout.flush()
            return status
    except CommandError as error:
        print(f"serval: {error}", file=sys.stderr)
        return error.status
    except ControlError as error:
        print(f"serval: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; the interpreter must not try to flush what is left.
        _forget_output()
        return 141
    except OSError as error:
        if error.errno not in _CANNOT_WRITE or error.filename is not None:
            raise
        print(f"serval: cannot write what there is to say: {error.strerror}", file=sys.stderr)
        _forget_output()
        return 1


def _forget_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="serval", description=_DESCRIPTION, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--control",
        metavar="PATH",
        default=os.environ.get("SERVAL_CONTROL", CONTROL_PATH),
        help="the daemon's control socket (default $SERVAL_CONTROL, else %(default)s)",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    as_json = argparse.ArgumentParser(add_help=False)
    as_json.add_argument("--json", action="store_true", help="print one JSON document")
    _add_lists(commands, as_json)
    _add_connect(commands, as_json)
    _add_bind(commands, as_json)
    _add_run(commands)
    rule.add_parser(commands, as_json)
    delayed.add_parser(commands, as_json)
    mode.add_parser(commands, as_json)
    load.add_parser(commands, as_json)
    _add_trace(commands, as_json)
    _add_explain(commands, as_json)
    _add_watch(commands)
    events.add_parser(commands)
    migrate.add_parser(commands, as_json)
    adhoc.add_parser(commands, as_json)
    encapsulation.add_parser(commands, as_json)
    router.add_parser(commands, as_json)
    return parser


def _add_lists(commands: argparse._SubParsersAction[argparse.ArgumentParser], as_json: argparse.ArgumentParser) -> None:
    table = commands.add_parser("table", parents=[as_json], help="the service table: serviceID, action, sock/addr")
    table.add_argument(
        "service", nargs="?", help="only the rules that a SYN for this service could meet, longest first"
    )
    flows = commands.add_parser("flows", parents=[as_json], help="the flow table: flowID, socket, state, addresses")
    flows.add_argument("flow_ids", nargs="*", type=int, metavar="FLOWID", help="only these")
    commands.add_parser(
        "stat", parents=[as_json], help="the node: role, addresses, controller, counters, drops by reason"
    )
    commands.add_parser("names", parents=[as_json], help="virtual addresses that names have in this host")


def _add_connect(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], as_json: argparse.ArgumentParser
) -> None:
    parser = commands.add_parser(
        "connect",
        parents=[as_json],
        help="a small netcat by service name; --count tells which instances answer",
        description="Connect to a service: standard input goes there, what it sends goes to standard output. "
        "With --count, connect that often and print which instance answered.",
    )
    parser.add_argument("service", help="a service, in any of the forms of `serval --help`")
    parser.add_argument(
        "--count", type=_positive, metavar="N", help="connect N times, print the instance, send nothing"
    )
    parser.add_argument("--interval", type=float, default=0.0, metavar="S", help="seconds between connects (default 0)")
    parser.add_argument(
        "--timeout", type=arguments.seconds, default=10.0, metavar="S", help="longest wait (default 10)"
    )
    parser.add_argument(
        "--udp",
        action="store_true",
        help="each line of input is a datagram; print as many answers as lines were sent, then end",
    )


def _add_bind(commands: argparse._SubParsersAction[argparse.ArgumentParser], as_json: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "bind",
        parents=[as_json],
        help="give a name to a listening port, or serve the name",
        description="With PORT: name the socket that listens on this kernel port now, for as long as it listens. "
        "Without: serve the name here, echoing what comes.",
    )
    parser.add_argument("service", help="a service, in any of the forms of `serval --help`")
    parser.add_argument("--udp", action="store_true", help="a UDP port; without PORT: serve datagrams")
    parser.add_argument("port", nargs="?", type=_port, metavar="PORT", help="a kernel port on which something listens")
    parser.add_argument("--answer", metavar="TEXT", help="without PORT: send TEXT to each client and close")
    parser.add_argument(
        "--remove", action="store_true", help="with PORT: take the name back; the port goes on listening"
    )


def _add_run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "run",
        help="start an unmodified server as an instance of a service",
        description="Start COMMAND and give the service's name to the ports on which it or its children listen: the "
        "bare name with one port, whichever it is; (name, port) each with several. A rule lives exactly as long as the "
        "listening socket.",
    )
    _service_arguments(parser)
    parser = commands.add_parser(
        "standby",
        help="offer a server that is started when it is asked for",
        description="Offer COMMAND to the controller as an instance of a service that is not started yet. When it is "
        "asked for, it is started as by `serval run`; when it ends, it is offered again. Nothing but this command can "
        "be started by it, and the offer ends with this process.",
    )
    _service_arguments(parser)


def _service_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--service", required=True, metavar="NAME", help="the service's name, without a port")
    parser.add_argument(
        "--main", type=_port, metavar="PORT", help="of several ports, the one that connect(NAME) reaches"
    )
    parser.add_argument(
        "--udp",
        type=_port,
        action="append",
        default=[],
        metavar="PORT",
        help="this UDP port of the command is the service's too (may be given several times): a UDP socket does not "
        "say whether it serves",
    )
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="the command and its arguments")


def _add_trace(commands: argparse._SubParsersAction[argparse.ArgumentParser], as_json: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "trace",
        parents=[as_json],
        help="one connect as the slides tell it, each step timed",
        description="Make one connect and print its steps: rule hit, SYN to the service router, the router's rewrite "
        "to an instance, SYN-ACK from there, direct data. Steps of other nodes come from their own event logs.",
    )
    parser.add_argument("service", help="a service, in any of the forms of `serval --help`")
    parser.add_argument(
        "--timeout", type=arguments.seconds, default=10.0, metavar="S", help="longest wait (default 10)"
    )


def _add_explain(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], as_json: argparse.ArgumentParser
) -> None:
    parser = commands.add_parser(
        "explain",
        parents=[as_json],
        help="which rules a connect would meet, and why; sends nothing",
        description="Say which rule of which table would take a SYN for this service and why, what becomes of it, and "
        "how connect() would end. FORWARD is followed to the tables of the next hosts where they can be seen. No "
        "packet is sent and nothing is counted; the status is 0 also where connect() would fail.",
    )
    parser.add_argument("service", help="a service, in any of the forms of `serval --help`")


def _add_watch(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "watch",
        help="the tables, live, with what changed marked",
        description="Show the node's tables until q or Ctrl-C: rows that are new (+), changed (*) and gone (-) are "
        "marked for a moment. Where standard output is no terminal, print a line for each change instead. A node that "
        "does not run is waited for.",
    )
    parser.add_argument("--table", choices=TABLES, help="only this table (default: all three)")
    parser.add_argument(
        "--interval", type=_interval, default=1.0, metavar="S", help="seconds from picture to picture (default 1)"
    )
    parser.add_argument("--seconds", type=_interval, metavar="S", help="end after this time")
    parser.add_argument("--once", action="store_true", help="print the tables once, as plain text, and end")


def _interval(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not SHORTEST_INTERVAL <= seconds <= LONGEST_INTERVAL:
        limits = f"{SHORTEST_INTERVAL:g} to {LONGEST_INTERVAL:g}"
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from {limits}")
    return seconds


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def _port(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (1 to 65535)")
    return int(text)


def _table(client: Client, options: argparse.Namespace) -> int:
    fields = {} if options.service is None else {"service": options.service}
    entries = client.request("table", **fields)["entries"]
    print_json(entries) if options.json else print(show.table_text(entries))
    return 0


def _flows(client: Client, options: argparse.Namespace) -> int:
    flows = client.request("flows", flow_ids=options.flow_ids)["flows"]
    missing = sorted({*options.flow_ids} - {flow["flow_id"] for flow in flows})
    if missing:
        raise CommandError(f"this host has no flow {missing[0]}; `serval flows` lists them")
    print_json(flows) if options.json else print(show.flows_text(flows))
    return 0


def _stat(client: Client, options: argparse.Namespace) -> int:
    answer = {"status": client.request("status"), "counters": client.request("stat")["counters"]}
    print_json(answer) if options.json else print(show.stat_text(answer))
    return 0


def _names(client: Client, options: argparse.Namespace) -> int:
    names = client.request("names")["names"]
    print_json(names) if options.json else print(show.names_text(names))
    return 0


def _connect(client: Client, options: argparse.Namespace) -> int:
    if options.udp and options.count is not None:
        raise CommandError("--count makes connections of TCP; it does not go with --udp", 2)
    if options.udp:
        return datagrams.netcat(options.service, options.timeout)
    if options.count is None:
        return connect.netcat(options.service, options.timeout)
    return connect.repeat(
        client, options.service, options.count, options.interval, options.timeout, as_json=options.json
    )


def _bind(client: Client, options: argparse.Namespace) -> int:
    if options.port is None:
        if options.remove:
            raise CommandError("--remove needs PORT", 2)
        serve = bind.serve_datagrams if options.udp else bind.serve
        return serve(options.service, options.answer)
    if options.remove:
        return bind.unbind_port(client, options.service, options.port, udp=options.udp)
    return bind.bind_port(client, options.service, options.port, udp=options.udp, as_json=options.json)


def _run(client: Client, options: argparse.Namespace) -> int:
    return run(client, options.service, options.main, _command(options, "run"), udp=options.udp)


def _command(options: argparse.Namespace, name: str) -> list[str]:
    command: list[str] = options.words[1:] if options.words[:1] == ["--"] else options.words
    if not command:
        raise CommandError(f"no command: serval {name} --service NAME -- COMMAND [ARGUMENT...]", 2)
    return command


def _standby(client: Client, options: argparse.Namespace) -> int:
    return standby(client, options.service, options.main, _command(options, "standby"), udp=options.udp)


def _trace(client: Client, options: argparse.Namespace) -> int:
    return trace.trace(client, options.service, options.timeout, as_json=options.json)


def _explain(client: Client, options: argparse.Namespace) -> int:
    return explain.explain(client, options.service, as_json=options.json)


def _watch(client: Client, options: argparse.Namespace) -> int:
    # The one command with modules that the others shall not pay for.
    from serval_node.cli import watch

    tables = TABLES if options.table is None else (options.table,)
    return watch.watch(client.path, watch.Options(tables, options.interval, options.seconds, options.once))


_COMMANDS = {
    "table": _table,
    "flows": _flows,
    "stat": _stat,
    "names": _names,
    "connect": _connect,
    "explain": _explain,
    "migrate": migrate.migrate,
    "adhoc": adhoc.adhoc,
    "encapsulation": encapsulation.encapsulation,
    "router": router.router,
    "bind": _bind,
    "run": _run,
    "rule": rule.rule,
    "delayed": delayed.delayed,
    "mode": mode.mode,
    "load": load.load,
    "standby": _standby,
    "trace": _trace,
    "watch": _watch,
    "events": events.events,
}


if __name__ == "__main__":
    sys.exit(main())
