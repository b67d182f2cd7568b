"""Who can run a package, and why others cannot: from `PackageInfo` to the table "runs in"; and the engines of Java programs, run."""

from forestbridge.consumers.java_engines import JAVA_ENGINES as JAVA_ENGINES
from forestbridge.consumers.java_engines import JavaEngine as JavaEngine
from forestbridge.consumers.java_engines import JavaTools as JavaTools
from forestbridge.consumers.java_engines import cached_libraries as cached_libraries
from forestbridge.consumers.java_engines import engine_libraries as engine_libraries
from forestbridge.consumers.java_engines import find_java as find_java
from forestbridge.consumers.java_engines import run_in_java as run_in_java
from forestbridge.consumers.report import ConsumerVerdict as ConsumerVerdict
from forestbridge.consumers.report import consumer_report as consumer_report
from forestbridge.consumers.report import format_consumer_table as format_consumer_table
from forestbridge.consumers.rules import CONSUMERS as CONSUMERS
from forestbridge.consumers.schema import validate_with_spec as validate_with_spec
