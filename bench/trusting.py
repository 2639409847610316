"""``zerotier-one`` that believes every proof of work, for loads of made-up peers (bench.root).

To find 20,000 valid identities would take 17 minutes of a core; what a check costs is known.
"""

import sys

from zt.protocol.identity import Identity
from zt.service.main import main

if __name__ == "__main__":
    Identity.validate = lambda self: True  # type: ignore[method-assign]
    sys.exit(main())
