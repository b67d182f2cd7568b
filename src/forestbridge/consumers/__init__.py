"""Who can run a package, and why others cannot: from `PackageInfo` to the table "runs in"."""

from forestbridge.consumers.report import ConsumerVerdict as ConsumerVerdict
from forestbridge.consumers.report import consumer_report as consumer_report
from forestbridge.consumers.report import format_consumer_table as format_consumer_table
from forestbridge.consumers.rules import CONSUMERS as CONSUMERS
from forestbridge.consumers.schema import validate_with_spec as validate_with_spec
