"""Backups of a data folder: made while the farm runs, checked, and put back.

| in a backup | what it is |
|---|---|
| `backup.json` | the manifest: every other file with its length and SHA-256 |
| `token.key` | the token key, unless that is in the settings (`token.keys`) |
| `store.layout`, and what it names, or `store.sqlite3` | as in a data folder (`router.store.layout`) |

A folder with mode 0700, or one file (`farm.backup.archive`). Files have mode 0600: who has the token key can make push
endpoints of this farm.
"""
