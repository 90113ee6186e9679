"""What all visitors share is limited: where there is no room left, whoever holds most of it gives first.

Nobody is ever locked out while there is room, and many behind one address hold as much as the others leave them.
"""

import heapq
import ipaddress
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
NETWORK = 64  # bits of an IPv6 address: whoever has one address has all that begin like it


def visitor(client: Sequence | None) -> str:
    """Who is behind the (address, port) of a request. uvicorn replaces a proxy's by what it says, if it trusts it.

    >>> visitor(("192.0.2.7", 50000)), visitor(("2001:db8:1:2:3::4", 50000)), visitor(("::ffff:192.0.2.7", 50000))
    ('192.0.2.7', '2001:db8:1:2::', '192.0.2.7')
    """
    if not client:
        return ""
    try:
        address = ipaddress.ip_address(str(client[0]))
    except ValueError:  # a name that a proxy made up
        return str(client[0])[:NETWORK]
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), NETWORK), strict=False).network_address)


def surrendered(held: Iterable[tuple[Item, str, float]], besides: Mapping[str, float] | None = None) -> Iterator[Item]:
    """The items in the order in which they are given up, of (item, its owner, its size), the longest unused first.

    Each time whoever holds most gives what is first of that owner's, and of several the one whose is the longest
    unused. `besides` is what owners hold that cannot be given.

    >>> list(surrendered([("a", "one", 1), ("b", "many", 2), ("c", "many", 2), ("d", "many", 2)]))
    ['b', 'c', 'd', 'a']
    """
    of: defaultdict[str, deque[tuple[int, Item, float]]] = defaultdict(deque)
    for age, (item, owner, size) in enumerate(held):
        of[owner].append((age, item, size))
    fixed = besides or {}
    most = [(-fixed.get(owner, 0) - sum(size for *_, size in items), items[0][0], owner) for owner, items in of.items()]
    heapq.heapify(most)
    while most:
        total, _, owner = most[0]
        _, item, size = of[owner].popleft()
        yield item
        if of[owner]:
            heapq.heapreplace(most, (total + size, of[owner][0][0], owner))
        else:
            heapq.heappop(most)


class Places:
    """So many at a time, for what cannot be taken back: one visitor may hold as many as are free."""

    def __init__(self, most: int):
        self.most = max(2, most)
        self._held: Counter[str] = Counter()

    @contextmanager
    def one(self, owner: str, refusal: Exception) -> Iterator[None]:
        """A place, for as long as the context lasts, or the refusal."""
        if self._held[owner] >= self.most - self._held.total():
            raise refusal
        self._held[owner] += 1
        try:
            yield
        finally:
            self._held[owner] -= 1
            if not self._held[owner]:
                del self._held[owner]
