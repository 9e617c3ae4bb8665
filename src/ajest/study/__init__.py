"""A study: many rules of selection screened on some seeds, the best of them judged on others.

The rules: docs/method.md#rules; how they are judged: docs/method.md#protocol.
"""
