"""Studies: measurements that go beyond the paper and take long, one file each; results are kept in ``stored/``."""
