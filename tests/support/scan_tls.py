"""Run in the environment `audit`: `scan_tls.py HOST PORT CA` prints as JSON what sslyze finds at a port.

A finding is what is not in order; what is offered is beside that.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")

from sslyze import (  # noqa: E402
    CertificateInfoExtraArgument,
    ScanCommandsExtraArguments,
    Scanner,
    ServerNetworkLocation,
    ServerScanRequest,
)
from sslyze.mozilla_tls_profile.tls_config_checker import (  # noqa: E402
    MozillaTlsConfiguration,
    ServerNotCompliantWithTlsConfiguration,
    TlsConfigurationEnum,
    check_server_against_tls_configuration,
)

VERSIONS = {
    "SSL 2.0": "ssl_2_0",
    "SSL 3.0": "ssl_3_0",
    "TLS 1.0": "tls_1_0",
    "TLS 1.1": "tls_1_1",
    "TLS 1.2": "tls_1_2",
    "TLS 1.3": "tls_1_3",
}


def main(host: str, port: str, ca: str) -> None:
    extra = ScanCommandsExtraArguments(certificate_info=CertificateInfoExtraArgument(Path(ca)))
    where = ServerNetworkLocation(host, int(port), ip_address=host)
    scanner = Scanner()
    scanner.queue_scans([ServerScanRequest(where, scan_commands_extra_arguments=extra)])
    (found,) = scanner.get_results()
    scan: Any = found.scan_result
    assert scan is not None, found.connectivity_error_trace
    offered = {
        name: sorted(
            one.cipher_suite.name
            for one in getattr(scan, f"{key}_cipher_suites").result.accepted_cipher_suites
        )
        for name, key in VERSIONS.items()
    }
    print(json.dumps({"offered": offered, "findings": _findings(found, scan)}))


def _findings(found: Any, scan: Any) -> dict[str, str]:
    told: dict[str, str] = {}
    try:
        wanted = MozillaTlsConfiguration.get(TlsConfigurationEnum.MOZILLA_INTERMEDIATE)
        check_server_against_tls_configuration(found, wanted)
    except ServerNotCompliantWithTlsConfiguration as error:
        told = {f"mozilla: {name}": text for name, text in error.issues.items()}
    renegotiation = scan.session_renegotiation.result
    deployed = scan.certificate_info.result.certificate_deployments
    facts = {
        "heartbleed": scan.heartbleed.result.is_vulnerable_to_heartbleed,
        "ccs injection": scan.openssl_ccs_injection.result.is_vulnerable_to_ccs_injection,
        "robot": "NOT_VULNERABLE" not in scan.robot.result.robot_result.name,
        "compression": scan.tls_compression.result.supports_compression,
        "no fallback scsv": not scan.tls_fallback_scsv.result.supports_fallback_scsv,
        "renegotiation by the client": renegotiation.is_vulnerable_to_client_renegotiation_dos,
        "no secure renegotiation": not renegotiation.supports_secure_renegotiation,
        "early data": scan.tls_1_3_early_data.result.supports_early_data,
        "no extended master secret": not scan.tls_extended_master_secret.result.supports_ems_extension,
        "weak signature": any(one.verified_chain_has_sha1_signature for one in deployed),
        "wrong order of certificates": not all(one.received_chain_has_valid_order for one in deployed),
        # By its own CA, which sslyze was told of.
        "not vouched for by its ca": not all(
            any(one.was_validation_successful for one in row.path_validation_results) for row in deployed
        ),
    }
    return {**told, **{name: "yes" for name, bad in facts.items() if bad}}


if __name__ == "__main__":
    main(*sys.argv[1:])
