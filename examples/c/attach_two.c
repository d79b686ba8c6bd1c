/* SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause */
/* Attaches two programs to an interface as one chain, lists what is there, and takes both off again.
 *
 * The programs are of any two BPF objects, as bpf/prebuilt/packet_counter.o and udp_filter.o. In what order they run, and
 * after which verdicts the second one does, they say themselves; here the first is put first.
 *
 * It uses no more than C libxdp has, and runs with that too.
 */
#include <errno.h>
#include <getopt.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xdp/libxdp.h>

static const char usage[] = "usage: attach_two [--skb] [--seconds N] INTERFACE FIRST.o SECOND.o\n"
			    "\n"
			    "Attaches the first XDP program of each file to INTERFACE, in this order, lists all programs\n"
			    "that are there, and takes these two off again.\n"
			    "\n"
			    "  --skb        in the network stack, for drivers without XDP\n"
			    "  --seconds N  how long they stay; 0 if it is not given\n"
			    "\n"
			    "Needs CAP_SYS_ADMIN and CAP_NET_ADMIN, and a bpf file system at /sys/fs/bpf.\n";

struct options {
	enum xdp_attach_mode mode;
	unsigned int seconds;
	const char *interface;
	const char *files[2];
};

/* Says what failed and why. Returns 1, for main() to return. */
static int failed(const char *what, const char *which, int err)
{
	char why[128];

	libxdp_strerror(err, why, sizeof(why));
	fprintf(stderr, "attach_two: %s %s: %s\n", what, which, why);
	return 1;
}

/* A number and nothing else. */
static int parse_seconds(const char *text, unsigned int *seconds)
{
	char *end;
	unsigned long value;

	errno = 0;
	value = strtoul(text, &end, 10);
	if (errno || *text < '0' || *text > '9' || *end || value > 1000000)
		return -1;
	*seconds = value;
	return 0;
}

static void parse(int argc, char **argv, struct options *options)
{
	static const struct option known[] = {
		{ "help", no_argument, NULL, 'h' },
		{ "skb", no_argument, NULL, 's' },
		{ "seconds", required_argument, NULL, 'n' },
		{},
	};
	int option;

	while ((option = getopt_long(argc, argv, "h", known, NULL)) != -1) {
		if (option == 'h') {
			fputs(usage, stdout);
			exit(0);
		} else if (option == 's') {
			options->mode = XDP_MODE_SKB;
		} else if (option != 'n' || parse_seconds(optarg, &options->seconds)) {
			fputs(usage, stderr);
			exit(2);
		}
	}
	if (argc - optind != 3) {
		fputs(usage, stderr);
		exit(2);
	}
	options->interface = argv[optind];
	options->files[0] = argv[optind + 1];
	options->files[1] = argv[optind + 2];
}

/* What runs on the interface, in the order in which it does. */
static int list(int ifindex, const char *interface)
{
	struct xdp_multiprog *chain = xdp_multiprog__get_from_ifindex(ifindex);
	struct xdp_program *prog = NULL;
	char actions[128];
	int err = libxdp_get_error(chain);

	if (err)
		return failed("list", interface, err);
	if (xdp_multiprog__is_legacy(chain))
		printf("%s: one program, without a chain\n", interface);
	else
		printf("%s: a chain of %d\n", interface, xdp_multiprog__program_count(chain));
	/* The programs belong to the chain, and are closed with it. */
	while ((prog = xdp_multiprog__next_prog(prog, chain))) {
		xdp_program__print_chain_call_actions(prog, actions, sizeof(actions));
		printf("  %3u  %-16s id %u, goes on after %s\n", xdp_program__run_prio(prog), xdp_program__name(prog),
		       xdp_program__id(prog), actions);
	}
	xdp_multiprog__close(chain);
	return 0;
}

/* In one step: packets see both programs, or none. */
static int run(struct xdp_program **progs, int ifindex, const struct options *options)
{
	int err, status;

	err = xdp_program__attach_multi(progs, 2, ifindex, options->mode, 0);
	if (err)
		return failed("attach to", options->interface, err);
	status = list(ifindex, options->interface);
	fflush(stdout);
	sleep(options->seconds);
	err = xdp_program__detach_multi(progs, 2, ifindex, options->mode, 0);
	if (err)
		return failed("detach from", options->interface, err);
	printf("%s: both are off\n", options->interface);
	return status;
}

int main(int argc, char **argv)
{
	/* The mode may be left to the kernel, which takes the driver's where there is one. */
	struct options options = { .mode = XDP_MODE_UNSPEC };
	struct xdp_program *progs[2] = {};
	int ifindex, err = 0, status = 1, i;

	parse(argc, argv, &options);
	ifindex = if_nametoindex(options.interface);
	if (!ifindex)
		return failed("find", options.interface, -errno);

	for (i = 0; i < 2 && !err; i++) {
		/* A failure is an errno in the pointer. */
		progs[i] = xdp_program__open_file(options.files[i], NULL, NULL);
		err = libxdp_get_error(progs[i]);
		if (err) {
			failed("open", options.files[i], err);
			progs[i] = NULL;
			continue;
		}
		/* Smaller runs earlier. To be set before a program is loaded, which the attach does. */
		err = xdp_program__set_run_prio(progs[i], 10 + i);
		if (!err)
			/* If the first one passes a packet, the second one has its say. */
			err = xdp_program__set_chain_call_enabled(progs[i], XDP_PASS, true);
		if (err)
			failed("set up", options.files[i], err);
	}
	if (!err)
		status = run(progs, ifindex, &options);

	/* NULL is fine. The program stays where it is attached. */
	for (i = 0; i < 2; i++)
		xdp_program__close(progs[i]);
	return status;
}
