"""Users who come to a shop that asks the served models what to show, and who buy or do not."""

import http.client
import json
import sys
from urllib.parse import urlsplit

import numpy as np

from world import FEATURES, buys, likes, users


def main(url, n, seed):
    random = np.random.default_rng(seed)
    rows = users(random, n, shops=5)
    liked = likes(rows)
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=60)
    bought, seen, failed, outcomes = {}, {}, 0, []

    def post(path, body, **headers):
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        return answer, json.loads(answer.read())

    for number, row in enumerate(rows):
        user = f"user-{seed}-{number}"
        asked = {"dataframe_split": {"columns": FEATURES, "data": [row.tolist()]}}
        answer, told = post("/invocations", asked, **{"X-User-Id": user})
        arm = answer.getheader("X-Mlcli-Variant") or told.get("model", "?")
        if answer.status != 200:
            failed += 1
            continue
        seen[arm] = seen.get(arm, 0) + 1
        if buys(random, told["predictions"][0], liked[number]):
            bought[arm] = bought.get(arm, 0) + 1
            outcomes.append({"unit": user, "key": "bought"})
        if len(outcomes) >= 25:
            post("/feedback", outcomes)
            outcomes = []
    if outcomes:
        post("/feedback", outcomes)
    for arm in sorted(seen):
        print(f"{arm}: {seen[arm]} users, {bought.get(arm, 0) / seen[arm]:.1%} bought")
    print(f"{failed} of {n} users got an error")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
