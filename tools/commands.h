/* commands.h: the subcommands of dlattn, one file each. argv[0] is the subcommand's name; the result is the exit code:
 * 0 success, 1 a check failed or a call was refused, 2 the command line was wrong. */
#ifndef DLATTN_TOOLS_COMMANDS_H
#define DLATTN_TOOLS_COMMANDS_H

int command_info(int argc, char **argv);
int command_explain(int argc, char **argv);
int command_check(int argc, char **argv);
int command_bench(int argc, char **argv);
int command_cases(int argc, char **argv);
int command_demo(int argc, char **argv);

#endif
