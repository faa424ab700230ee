/* oracle_float.c: the oracle in float. */
#define NUMBER float
#define ORACLE_NAME oracle_run_float
#include "oracle_tmpl.h"
