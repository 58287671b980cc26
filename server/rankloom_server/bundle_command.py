"""The command `rankloom bundle`: keys, signatures, older bundles, and what is in an expert."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


class BundleCommand:
    name = "bundle"
    help = "sign bundles, check signatures, convert older bundles, look into bundles and experts"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        actions = parser.add_subparsers(
            title="actions", metavar="ACTION", dest="action", required=True
        )
        keygen = _add(actions, "keygen", "make an Ed25519 key; no file is overwritten")
        keygen.add_argument(
            "--private", metavar="FILE", type=Path, required=True, help="new file; keep it secret"
        )
        keygen.add_argument(
            "--public", metavar="FILE", type=Path, required=True, help="new file, for the servers"
        )
        sign = _add(actions, "sign", "check a bundle's parts and sign its manifest")
        sign.add_argument("bundle", metavar="BUNDLE", type=Path, help="folder of the bundle")
        sign.add_argument(
            "--key", metavar="FILE", type=Path, required=True, help="a private key as PEM"
        )
        verify = _add(actions, "verify", "check a bundle's signature and its parts")
        verify.add_argument("bundle", metavar="BUNDLE", type=Path, help="folder of the bundle")
        verify.add_argument(
            "--key", metavar="FILE", type=Path, required=True, action="append",
            help="a trusted public key as PEM; may be given again",
        )  # fmt: skip
        convert = _add(actions, "convert", "write a bundle of format 2 as one of format 3")
        convert.add_argument("bundle", metavar="OLD", type=Path, help="folder of format 2")
        convert.add_argument("target", metavar="NEW", type=Path, help="a folder that is new")
        convert.add_argument(
            "--drop-signature", action="store_true",
            help="convert a signed bundle; its signature is not valid for the new one",
        )  # fmt: skip

        inspect = _add(
            actions, "inspect", "show what is in an expert or a bundle, or why it is refused"
        )
        inspect.add_argument(
            "expert", metavar="FOLDER", type=Path, help="an expert in PEFT's format, or a bundle"
        )
        inspect.add_argument(
            "--bundle", metavar="BUNDLE", type=Path,
            help="check the expert as if it were staged beside this bundle's",
        )  # fmt: skip
        inspect.add_argument("--json", action="store_true", help="print JSON instead of text")

    def run(self, args: argparse.Namespace) -> int:
        """Returns 1 for a refused bundle or expert, 2 for a file or folder that cannot be used."""
        from rankloom_adapters.bundle import BundleError
        from rankloom_adapters.convert import ConversionError
        from rankloom_adapters.expert import ExpertError
        from rankloom_adapters.signing import KeyFileError

        actions = {
            "keygen": _keygen, "sign": _sign, "verify": _verify, "convert": _convert,
            "inspect": _inspect,
        }  # fmt: skip
        given = (getattr(args, name, None) for name in ("expert", "bundle"))
        folders = [folder for folder in given if folder is not None]
        for folder in folders:
            if not folder.is_dir():
                return _refuse(2, f"{folder}: no such folder")
        try:
            done = actions[args.action](args)
        except (ConversionError, KeyFileError) as error:
            return _refuse(2, str(error))
        except ExpertError as error:
            return _refuse(1, f"{args.expert}: {error.reason}")
        except BundleError as error:
            return _refuse(1, f"{folders[-1]}: {error}")
        except OSError as error:
            return _refuse(1, f"{folders[0]}: {error.strerror}")
        sys.stdout.write(f"{done}\n")
        return 0


def _add(
    actions: argparse._SubParsersAction[argparse.ArgumentParser], name: str, summary: str
) -> argparse.ArgumentParser:
    return actions.add_parser(name, help=summary, description=summary, allow_abbrev=False)


def _keygen(args: argparse.Namespace) -> str:
    from rankloom_adapters.signing import generate_keys

    return f"{args.public}: key {generate_keys(args.private, args.public)}"


def _sign(args: argparse.Namespace) -> str:
    from rankloom_adapters.bundle import open_bundle
    from rankloom_adapters.signing import read_private_key, sign

    key = read_private_key(args.key)
    bundle = open_bundle(args.bundle)
    bundle.check()  # nobody vouches for what is not whole
    return f"{args.bundle}: bundle {bundle.digest[:12]}, signed by key {sign(bundle, key)}"


def _verify(args: argparse.Namespace) -> str:
    from rankloom_adapters.bundle import open_bundle
    from rankloom_adapters.signing import Keyring

    keyring = Keyring.from_files(args.key)
    bundle = open_bundle(args.bundle, check=keyring.check_manifest)
    signer = keyring.check(bundle)
    bundle.check()
    return f"{args.bundle}: bundle {bundle.digest[:12]}, signed by key {signer}, whole"


def _convert(args: argparse.Namespace) -> str:
    from rankloom_adapters.convert import convert, has_events

    digest = convert(args.bundle, args.target, drop_signature=args.drop_signature)
    advice = ", without its events: import them with `rankloom events import`"
    events = advice if has_events(args.bundle) else ""
    dropped = "; sign it again" if args.drop_signature else ""
    return f"{args.target}: bundle {digest[:12]}, converted from {args.bundle}{events}{dropped}"


def _inspect(args: argparse.Namespace) -> str:
    from rankloom_adapters.bundle import MANIFEST

    if args.bundle is None and (args.expert / MANIFEST).exists():
        from rankloom_server.bundle_text import describe_bundle

        return describe_bundle(args.expert, as_json=args.json)
    from rankloom_server.expert_text import describe_expert

    return describe_expert(args.expert, args.bundle, as_json=args.json)


def _refuse(exit_code: int, message: str) -> int:
    sys.stderr.write(f"rankloom bundle: {' '.join(message.split())}\n")
    return exit_code


bundle = BundleCommand()
