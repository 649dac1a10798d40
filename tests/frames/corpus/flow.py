"""Loops, branches, walrus, and small algorithms."""


def case_for_else():
    out = []
    for n in range(2, 12):
        for d in range(2, n):
            if n % d == 0:
                break
        else:
            out.append(n)
    return out


def case_while_else():
    n = 5
    while n:
        n -= 1
        if n == 10:
            break
    else:
        return "done"


def case_while_break_continue():
    out, n = [], 0
    while True:
        n += 1
        if n % 2:
            continue
        if n > 8:
            break
        out.append(n)
    return out


def case_nested_break():
    found = None
    for i in range(5):
        for j in range(5):
            if i * j == 6:
                found = (i, j)
                break
        if found:
            break
    return found


def case_loop_variable_stays():
    for i in range(3):
        pass
    return i


def case_loop_over_changed_list():
    items = [1, 2, 3]
    for item in items:
        if item < 3:
            items.append(item + 3)
    return items


def case_loop_over_dict_views():
    d = {"a": 1, "b": 2}
    return [k for k in d], [v for v in d.values()], [(k, v) for k, v in d.items()]


def case_dict_changed_while_iterating():
    d = {1: 1}
    for k in d:
        d[k + 1] = 1


def case_elif_chain():
    def grade(x):
        if x > 90:
            return "A"
        elif x > 80:
            return "B"
        elif x > 70:
            return "C"
        else:
            return "D"

    return [grade(x) for x in (95, 85, 75, 65)]


def case_conditional_chain():
    return [("neg" if x < 0 else "zero" if x == 0 else "pos") for x in (-1, 0, 1)]


def case_short_circuit():
    seen = []

    def t(x):
        seen.append(x)
        return x

    result = t(0) and t(1) or t(2) and not t(3) or t("end")
    return result, seen


def case_chained_comparison_once():
    calls = []

    def f(x):
        calls.append(x)
        return x

    return f(1) < f(2) < f(2) < f(3), calls


def case_walrus_in_while():
    data, out = [1, 2, 0, 3], []
    it = iter(data)
    while (x := next(it)) != 0:
        out.append(x)
    return out, x


def case_walrus_in_comprehension():
    out = [y for x in range(5) if (y := x * x) > 3]
    return out, y


def case_comprehension_scope():
    x = "outer"
    inner = [x for x in range(3)]
    return x, inner


def case_comprehension_conditions():
    return [x if x % 2 else -x for x in range(5)], {k: v for k, v in [(1, 2)] if k < v}


def case_comprehension_closure():
    return [f() for f in [(lambda: x * 10) for x in range(3)]]


def case_comprehension_reads_enclosing():
    base = 10

    def f(n):
        return [base + n + i for i in range(3)]

    return f(1)


def case_comprehension_error():
    return [1 // x for x in (1, 0)]


def case_nested_comprehension():
    matrix = [[1, 2, 3], [4, 5, 6]]
    return [[row[i] for row in matrix] for i in range(3)], [v for row in matrix for v in row]


def case_none_checks():
    def f(x):
        if x is None:
            return "none"
        if x is not None and x > 1:
            return "big"
        return "small"

    return f(None), f(5), f(0)


def case_while_none():
    node = (1, (2, (3, None)))
    out = []
    while node is not None:
        value, node = node
        out.append(value)
    return out


def case_assert_passes():
    assert 1 + 1 == 2, "never"
    return True


def case_assert_fails():
    assert 1 > 2, f"no: {1}"


def case_assert_without_message():
    assert []


def case_del_items():
    a, d = [1, 2, 3, 4], {"x": 1, "y": 2}
    del a[0], a[-1], d["x"]
    del a[:1]
    return a, d


def case_slice_assignment():
    a = list(range(6))
    a[1:3] = "xyz"
    a[::2] = [0] * len(a[::2])
    a[5:] = []
    return a


def case_bubble_sort():
    a = [5, 2, 9, 1]
    for i in range(len(a)):
        for j in range(len(a) - 1 - i):
            if a[j] > a[j + 1]:
                a[j], a[j + 1] = a[j + 1], a[j]
    return a


def case_quick_sort():
    def sort(a):
        if len(a) < 2:
            return a
        pivot, *rest = a
        return (
            sort([x for x in rest if x < pivot]) + [pivot] + sort([x for x in rest if x >= pivot])
        )

    return sort([3, 6, 1, 8, 2, 9, 2])


def case_merge_sort():
    def merge(a, b):
        out = []
        while a and b:
            out.append(a.pop(0) if a[0] <= b[0] else b.pop(0))
        return out + a + b

    def sort(a):
        return a if len(a) < 2 else merge(sort(a[: len(a) // 2]), sort(a[len(a) // 2 :]))

    return sort([3, 6, 1, 8, 2])


def case_sieve():
    n = 50
    flags = bytearray([1]) * (n + 1)
    flags[0:2] = b"\0\0"
    for i in range(2, int(n**0.5) + 1):
        if flags[i]:
            flags[i * i :: i] = bytes(len(flags[i * i :: i]))
    return [i for i, f in enumerate(flags) if f]


def case_gcd():
    a, b = 252, 105
    while b:
        a, b = b, a % b
    return a


def case_collatz():
    n, steps = 27, 0
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps += 1
    return steps


def case_matrix_product():
    a, b = [[1, 2], [3, 4]], [[5, 6], [7, 8]]
    return [[sum(x * y for x, y in zip(row, col)) for col in zip(*b)] for row in a]


def case_word_count():
    counts = {}
    for word in "the cat the dog the end".split():
        counts[word] = counts.get(word, 0) + 1
    return sorted(counts.items(), key=lambda kv: (-kv[1], kv[0]))


def case_bfs():
    graph = {1: [2, 3], 2: [4], 3: [4], 4: []}
    seen, queue = [], [1]
    while queue:
        node = queue.pop(0)
        if node not in seen:
            seen.append(node)
            queue.extend(graph[node])
    return seen


def case_dfs_recursive():
    graph = {"a": "bc", "b": "d", "c": "d", "d": ""}
    order = []

    def visit(n):
        if n not in order:
            for m in graph[n]:
                visit(m)
            order.append(n)

    visit("a")
    return order


def case_knapsack():
    items, best = [(2, 3), (3, 4), (4, 5)], [0] * 6
    for weight, value in items:
        for w in range(5, weight - 1, -1):
            best[w] = max(best[w], best[w - weight] + value)
    return best


def case_edit_distance():
    a, b = "kitten", "sitting"
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


def case_n_queens():
    def place(n, row=0, cols=()):
        if row == n:
            return 1
        return sum(
            place(n, row + 1, (*cols, c))
            for c in range(n)
            if all(c != d and abs(c - d) != row - r for r, d in enumerate(cols))
        )

    return place(5)


def case_roman():
    def roman(n):
        out = ""
        for value, sign in [(10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I")]:
            while n >= value:
                out += sign
                n -= value
        return out

    return [roman(n) for n in (1, 4, 9, 14, 27)]


def case_calculator():
    def parse(tokens):
        def expr():
            value = term()
            while tokens and tokens[0] in "+-":
                value = value + term() if tokens.pop(0) == "+" else value - term()
            return value

        def term():
            value = atom()
            while tokens and tokens[0] in "*/":
                value = value * atom() if tokens.pop(0) == "*" else value / atom()
            return value

        def atom():
            token = tokens.pop(0)
            if token == "(":
                value = expr()
                tokens.pop(0)
                return value
            return int(token)

        return expr()

    return parse(list("2*(3+4)-6/3"))


def case_game_of_life():
    cells = {(1, 0), (1, 1), (1, 2)}
    for _ in range(3):
        around = [
            (x + i, y + j) for x, y in cells for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j
        ]
        cells = {c for c in around if around.count(c) == 3 or (around.count(c) == 2 and c in cells)}
    return sorted(cells)


def case_string_building():
    out = ""
    for i, c in enumerate("hello"):
        out += c.upper() if i % 2 else c
    return out


def case_tuple_keys():
    grid = {(x, y): x * y for x in range(3) for y in range(3)}
    return sum(grid[i, i] for i in range(3)), grid[2, 1]


def case_ellipsis():
    return ... is Ellipsis, [...][0]


def case_type_checks():
    return [
        type(x).__name__ for x in (1, 1.0, "", b"", [], (), {}, set(), None, ..., range(1), len)
    ]
