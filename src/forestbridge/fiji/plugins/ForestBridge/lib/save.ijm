// Saves an open image as TIFF for forestbridge; the image itself stays as it is, with its name and selection.
// Argument: its title (empty: the active image), the folder of this call, and if wanted what the file's name begins with, each on a line. Returns "status=ok", the title and the
// path of the file, each on a line; or "status=error message=TEXT". Batch mode must be on.
argument = getArgument();
cut = indexOf(argument, "\n");
title = substring(argument, 0, cut);
words = split(substring(argument, cut + 1), "\n");
job = words[0];
if (nImages == 0)
    return "status=error message=expected an open image, found none; open one first";
if (title != "") {
    titles = getList("image.titles");
    found = false;
    for (i = 0; i < titles.length; i++)
        if (titles[i] == title)
            found = true;
    if (!found)
        return "status=error message=expected an open image named " + title + ", found: " + String.join(titles, ", ");
    selectImage(title);
}
title = getTitle();
original = getImageID();
name = replace(title, "[^A-Za-z0-9._-]", "_");
if (words.length > 1)
    name = words[1] + name;
if (!endsWith(name, ".tif"))
    name = name + ".tif";
File.makeDirectory(job);
if (!File.isDirectory(job))
    return "status=error message=expected to make the folder " + job + ", found that it cannot be made; check the folder for temporary files";
selected = selectionType() != -1;
if (selected)
    run("Select None");
// by its name: a window that has just been opened may become the active one at any moment
copy = "copy for " + File.getName(job);
run("Duplicate...", "title=[" + copy + "] duplicate");
selectImage(copy);
copy = getImageID();
saveAs("Tiff", job + File.separator + name);
selectImage(copy);
close();
selectImage(original);
if (selected)
    run("Restore Selection");
return "status=ok\n" + title + "\n" + job + File.separator + name;
