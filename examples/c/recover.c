/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/* Looks for what was lost or left behind in all network namespaces: pins, chains, AF_XDP programs. Says what it would do
 * about each and why, and with --apply does it.
 *
 * It uses xdp/oxdp.h, which is oxdp's alone.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xdp/oxdp.h>

static const char usage[] = "usage: recover [--apply] [--remove-empty]\n"
			    "\n"
			    "Says what would be done about the XDP chains of all network namespaces of this machine, and\n"
			    "their pins, and why; changes nothing.\n"
			    "\n"
			    "  --apply         does it\n"
			    "  --remove-empty  takes dispatchers off in which no program is left\n"
			    "\n"
			    "Needs CAP_SYS_ADMIN and CAP_NET_ADMIN, and CAP_SYS_PTRACE to see everybody's namespaces.\n"
			    "The exit status is 0 if nothing is (or is left) to be done, 3 if there would be, else 1.\n";

struct options {
	bool apply;
	unsigned int flags;
};

static void parse(int argc, char **argv, struct options *options)
{
	static const struct option known[] = {
		{ "help", no_argument, NULL, 'h' },
		{ "apply", no_argument, NULL, 'a' },
		{ "remove-empty", no_argument, NULL, 'e' },
		{},
	};
	int option;

	while ((option = getopt_long(argc, argv, "h", known, NULL)) != -1) {
		if (option == 'h') {
			fputs(usage, stdout);
			exit(0);
		} else if (option == 'a') {
			options->apply = true;
		} else if (option == 'e') {
			options->flags |= OXDP_PLAN_REMOVE_EMPTY;
		} else {
			fputs(usage, stderr);
			exit(2);
		}
	}
	if (optind != argc) {
		fputs(usage, stderr);
		exit(2);
	}
}

/* Carries it out. Each line is looked at again before: what has changed meanwhile is left alone, and what fails is told
 * by a message of the library, which goes to stderr. Then the next plan shows whether something is left.
 */
static int apply(struct oxdp_plan *plan, unsigned int flags)
{
	struct oxdp_plan *rest;
	int changed = oxdp_plan__apply(plan), status;

	if (changed < 0) {
		fprintf(stderr, "recover: nothing was done: %s\n", strerror(-changed));
		return 1;
	}
	printf("changed: %d\n", changed);
	rest = oxdp_plan(flags);
	if (!rest) {
		fprintf(stderr, "recover: cannot look again: %s\n", strerror(errno));
		return 1;
	}
	status = oxdp_plan__is_change(rest) ? 1 : 0;
	if (status)
		fprintf(stderr, "recover: something is left to be done\n");
	oxdp_plan__free(rest);
	return status;
}

int main(int argc, char **argv)
{
	struct options options = {};
	struct oxdp_plan *plan;
	size_t i;
	int status = 0;

	parse(argc, argv, &options);
	plan = oxdp_plan(options.flags);
	if (!plan) {
		fprintf(stderr, "recover: cannot look at the machine: %s\n", strerror(errno));
		return 1;
	}
	for (i = 0; i < oxdp_plan__count(plan); i++)
		puts(oxdp_plan__line(plan, i));

	if (!oxdp_plan__is_change(plan)) {
		puts("nothing to do");
	} else if (options.apply) {
		status = apply(plan, options.flags);
	} else {
		puts("nothing was changed: --apply does it");
		status = 3;
	}
	oxdp_plan__free(plan);
	return status;
}
