"""Counts primes, on as many processors as the machine has.

    swiftlet run -d --name primes --as unikernel primes.py --cpus 4 -p 7000:7000/udp
    swiftlet unikernel call localhost:7000 count_primes 2000000 --tasks 8

Under plain CPython it is a plain function: python primes.py 20000
"""

import sys

from swiftlet.unikernel import service, task


@task
def is_prime(number: int) -> bool:
    divisor = 2
    while divisor * divisor <= number:
        if number % divisor == 0:
            return False
        divisor += 1
    return True


@task
def count_primes(limit: int) -> int:
    if limit < 0:
        raise ValueError("a limit below zero")
    count = 0
    for number in range(2, limit + 1):
        if is_prime(number):
            count += 1
    return count


app = service(count_primes)

if __name__ == "__main__":
    print(count_primes(int(sys.argv[1]) if len(sys.argv) > 1 else 20000))
