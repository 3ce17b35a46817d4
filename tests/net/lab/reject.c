/* Preloaded into the daemon: has the kernel reject the elements of one Service.
 *
 * The file that REJECT names holds "namespace/name"; without the file nothing is rejected. In every
 * message that is sent by sendmsg(2), an element whose comment is "namespace/name:port" names an
 * object in place of its comment, which a set that has no objects answers with EINVAL. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { USERDATA = 6, OBJREF = 9 }; /* NFTA_SET_ELEM_USERDATA, NFTA_SET_ELEM_OBJREF */

/* Before the comment: an attribute's length and type, then type (0: a comment) and length of user data. */
enum { BEFORE = 6 };

static void retype(const struct msghdr *message, const char *comment, uint16_t from, uint16_t to)
{
	size_t wanted = strlen(comment);
	for (size_t i = 0; i < message->msg_iovlen; i++) {
		char *start = message->msg_iov[i].iov_base;
		char *end = start + message->msg_iov[i].iov_len;
		char *found = start;
		while ((found = memmem(found, end - found, comment, wanted)) != NULL) {
			uint16_t type;
			if (found - start >= BEFORE && found[-2] == 0) {
				memcpy(&type, found - 4, sizeof(type));
				if (type == from)
					memcpy(found - 4, &to, sizeof(to));
			}
			found += wanted;
		}
	}
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	ssize_t (*next)(int, const struct msghdr *, int) = dlsym(RTLD_NEXT, "sendmsg");
	const char *path = getenv("REJECT");
	char comment[512] = "";
	FILE *file = path ? fopen(path, "re") : NULL;
	if (file) {
		if (fgets(comment, sizeof(comment) - 1, file))
			strcat(comment, ":");
		fclose(file);
	}
	if (!comment[0])
		return next(fd, message, flags);
	retype(message, comment, USERDATA, OBJREF);
	ssize_t sent = next(fd, message, flags);
	retype(message, comment, OBJREF, USERDATA);
	return sent;
}
