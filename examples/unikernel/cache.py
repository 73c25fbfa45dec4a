"""A key-value cache that all processors serve at once, without a lock: integers by keys above zero.

swiftlet run -d --name cache --as unikernel cache.py --cpus 2 -p 7004:7000/udp
swiftlet unikernel call localhost:7004 put 42 1000
swiftlet unikernel call localhost:7004 get 42
"""

from swiftlet.unikernel import atomic_add, atomic_swap, int64, service, shared, task

PLACES = 4096
keys = shared(int64[:], PLACES)
values = shared(int64[:], PLACES)
counts = shared(int64[:], 2)


@task
def place_of(key: int, claim: bool) -> int:
    """Where a key lies, or may lie when it is claimed; -1 for nowhere."""
    if key <= 0:
        raise KeyError("keys are above zero")
    place = (key * 2654435761) % PLACES
    for _ in range(PLACES):
        if keys[place] == key:
            return place
        if keys[place] == 0:
            if not claim:
                return -1
            if atomic_swap(keys, place, 0, key) or keys[place] == key:
                return place
        place = (place + 1) % PLACES
    return -1


@task
def put(key: int, value: int) -> bool:
    """Keep a value; False where the cache is full."""
    place = place_of(key, True)
    if place < 0:
        return False
    values[place] = value
    atomic_add(counts, 0, 1)
    return True


@task
def get(key: int) -> tuple[bool, int]:
    """Whether there is a value, and it."""
    place = place_of(key, False)
    atomic_add(counts, 1, 1)
    if place < 0:
        return False, 0
    return True, values[place]


@task
def statistics() -> tuple[int, int]:
    """How often something was put, and asked for."""
    return counts[0], counts[1]


app = service(put, get, statistics)

if __name__ == "__main__":
    put(42, 1000)
    print(get(42), get(43), statistics())
