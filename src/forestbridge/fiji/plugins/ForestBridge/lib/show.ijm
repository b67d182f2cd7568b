// Opens a result under a title, with the pixel size of the image it belongs to.
// Argument: path, title, and title of the image, each on a line.
words = split(getArgument(), "\n");
selectImage(words[2]);
getVoxelSize(width, height, depth, unit);
interval = Stack.getFrameInterval();
open(words[0]);
rename(words[1]);
setVoxelSize(width, height, depth, unit);
if (interval != 0)
    Stack.setFrameInterval(interval);
return "status=ok";
