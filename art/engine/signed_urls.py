"""URLs that let their holder download one file for a while, without the key."""

import hashlib
import hmac
import secrets
import time
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlencode

LIFETIME_S = 3600


class UrlSigner:
    """Signs paths (HMAC-SHA256) with a secret that ends with this process.

    Args:
        lifetime_s: How long a URL is valid.
    """

    def __init__(self, *, lifetime_s: int = LIFETIME_S) -> None:
        self._secret = secrets.token_bytes(32)
        self._lifetime_s = lifetime_s

    def expiry(self) -> datetime:
        """The end of the validity of a URL that is signed now, UTC, in whole seconds."""
        return datetime.fromtimestamp(int(time.time()) + self._lifetime_s, tz=UTC)

    def sign(self, path: str, expires: datetime) -> str:
        """Add the query that makes a path valid until then."""
        moment = int(expires.timestamp())
        return (
            f"{path}?{urlencode({'expires': moment, 'signature': self._signature(path, moment)})}"
        )

    def is_valid(self, path: str, query: str) -> bool:
        """Tell whether the query is this signer's, for that path, and not too old."""
        fields = parse_qs(query)
        try:
            [moment], [signature] = fields["expires"], fields["signature"]
            expected = self._signature(path, int(moment))
        except (KeyError, ValueError):
            return False
        # As bytes, since what a stranger sends need not be ASCII.
        return hmac.compare_digest(signature.encode(), expected.encode()) and (
            int(moment) > time.time()
        )

    def _signature(self, path: str, moment: int) -> str:
        message = f"{moment}\n{path}".encode()
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()
